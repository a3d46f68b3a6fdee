"""What goes wrong in one process of a launch, done to it before its command begins."""

import time

AT_STEP = 2


def _at_step(what):
    """Do something in the passes of a step."""
    from blankfill.parallel.engine import ParallelEngine

    whole = ParallelEngine.forward_backward

    def forward_backward(self, batches, total_weight, *, step):
        if step == AT_STEP:
            self._ranks.begin_step(step)
            what()
        return whole(self, batches, total_weight, step=step)

    ParallelEngine.forward_backward = forward_backward


def _sleep():
    time.sleep(3600)


def _loop():
    while True:
        sum(range(100))


def sleep_in_a_step():
    _at_step(_sleep)


def loop_in_a_step():
    _at_step(_loop)


def damaged_rows():
    from blankfill.errors import DataError

    def refuse():
        raise DataError("the store is damaged")

    _at_step(refuse)


def damaged_pass():
    """Meet something within a pass, where torch's pipelines wrap what is raised."""
    from blankfill.errors import DataError
    from blankfill.parallel.ranks import Ranks

    mark = Ranks.mark

    def marked(self, *, in_step):
        if in_step and self.pulse.step == AT_STEP:
            raise DataError("the pass is damaged")
        mark(self, in_step=in_step)

    Ranks.mark = marked


def not_finite():
    """Give the rows of a step a loss that is not finite."""
    from blankfill.parallel.engine import ParallelEngine

    whole = ParallelEngine.forward_backward

    def forward_backward(self, batches, total_weight, *, step):
        for batch in batches if step == AT_STEP else ():
            batch.targets.weights.fill_(float("nan"))
        return whole(self, batches, total_weight, step=step)

    ParallelEngine.forward_backward = forward_backward


def sleep_over_rows():
    """Hang where rows are made, beside the training thread."""
    from blankfill.data.rows import RowSource

    whole = RowSource.rows

    def rows(self, first, size):
        if first >= 40:
            _sleep()
        return whole(self, first, size)

    RowSource.rows = rows


def full_disk():
    """Let no file grow from a step on, as on a disk that is full."""
    import resource

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    _at_step(fill)


def other_version():
    import blankfill.prepare.together

    blankfill.prepare.together.__version__ = "0.0.1"


def never_come():
    _sleep()
