"""Task: draw the figures and write the report's body."""

from cnn.pipeline.steps import WRITE_REPORT
from cnn.store.manifests import Headline
from tasks.runtime.step_task import Work, step_task


@step_task(WRITE_REPORT)
def write_report(work: Work) -> Headline:
    """Write every figure as PNG, and the page body with the figures inside."""
    from cnn.report.pages import body

    material = body.gather(work.inputs)
    body.write(work.folder, material, work.settings.mistakes, work.report)
    return {"n_figures": len(list(work.folder.glob("*.png")))}
