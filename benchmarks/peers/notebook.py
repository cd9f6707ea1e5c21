"""The notebook's way, written anew: a TensorFlow 1 graph that is fed each batch in a session."""

import numpy as np
import tensorflow as tf

from benchmarks.peers import Steps, images, labels


def start(batch_size: int) -> Steps:
    """Return what trains the graph; loss and accuracy are not looked at."""
    session, feed, train, _ = graph()
    pixels, one_hot = data()
    rng = np.random.default_rng(0)
    order = iter(())

    def batches():
        while True:
            drawn = rng.permutation(len(pixels))
            for first in range(0, len(drawn) - batch_size + 1, batch_size):
                yield drawn[first : first + batch_size]

    order = batches()

    def steps(n: int) -> None:
        for _ in range(n):
            chosen = next(order)
            session.run(train, feed(pixels[chosen], one_hot[chosen], 0.5))

    return steps


def data(part: str = "train"):
    """Return pixels 0..1 (n, 784) and one-hot labels (n, 10), float32, as the tutorial had them."""
    pixels = images(part).reshape(-1, 784).astype(np.float32) / 255
    return pixels, np.eye(10, dtype=np.float32)[labels(part)]


def graph():
    """Return a session, what makes its feed, the train step and the accuracy."""
    v1 = tf.compat.v1
    v1.disable_eager_execution()
    x = v1.placeholder(tf.float32, [None, 784])
    y = v1.placeholder(tf.float32, [None, 10])
    keep = v1.placeholder(tf.float32)

    def weights(*shape: int):
        return v1.Variable(v1.truncated_normal(shape, stddev=0.05))

    def biases(n: int):
        return v1.Variable(tf.constant(0.1, shape=[n]))

    values = tf.reshape(x, [-1, 28, 28, 1])
    values = tf.nn.relu(tf.nn.conv2d(values, weights(12, 12, 1, 25), [1, 2, 2, 1], "VALID"))
    values = tf.nn.relu(tf.nn.conv2d(values, weights(5, 5, 25, 64), [1, 1, 1, 1], "SAME"))
    values = tf.nn.max_pool2d(values, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")
    values = tf.reshape(values, [-1, 4 * 4 * 64])
    values = tf.nn.relu(tf.matmul(values, weights(1024, 1024)) + biases(1024))
    values = v1.nn.dropout(values, keep_prob=keep)
    logits = tf.nn.relu(tf.matmul(values, weights(1024, 10)) + biases(10))
    loss = tf.reduce_mean(v1.nn.softmax_cross_entropy_with_logits_v2(labels=y, logits=logits))
    train = v1.train.AdamOptimizer(1e-4).minimize(loss)
    hits = tf.equal(tf.argmax(logits, 1), tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(hits, tf.float32))
    session = v1.Session()
    session.run(v1.global_variables_initializer())
    return session, lambda px, py, pk: {x: px, y: py, keep: pk}, train, accuracy
