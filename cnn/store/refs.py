"""Refs: what steps pass to each other instead of data."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["dataset", "model", "evaluation", "filters", "patches", "report", "comparison"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Ref(BaseModel):
    """Names one artifact: its kind, the digest of its key, and the digest of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    key: Digest
    digest: Digest

    def __str__(self) -> str:
        return f"{self.kind} {self.key[:12]}"
