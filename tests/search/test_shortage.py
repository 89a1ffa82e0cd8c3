"""What Ray writes of a node without memory becomes a line that says what to do."""

from __future__ import annotations

from legoray.search.shortage import memory_problem, memory_shortage

TEXT = """\
12 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, \
ID: adfe92004663338dbdc332b09d507749ee8c4f4fbcda3537aa391471) was 22.54GB used / 23.54GB limit \
(0.957449)
OOM kill reason: Memory usage 24015310848B exceeded threshold of 24012677120B (95.0% of the limit)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
21360\t7.09\tpython train_something_else.py --with many --options that take --more-room than-a-line
32037\t5.75\tpython other.py
15833\t1.34\tray::RayTrainWorker
4758\t0.30\tray::RayTrainWorker
Refer to the documentation on how to address the out of memory issue.
"""


def test_the_node_and_its_largest_processes_are_named():
    assert memory_shortage(TEXT) == (
        "node 192.0.2.2",
        "its memory ran out (22.54 of 23.54 GB were used); the largest processes were: "
        "7.09 GB python train_something_else.py --with many --options that ta, "
        "5.75 GB python other.py, 1.34 GB ray::RayTrainWorker",
    )


def test_other_texts_are_about_something_else():
    assert memory_shortage("CUDA out of memory") is None
    assert memory_problem(RuntimeError("The actor died")) is None


def test_a_text_of_another_form_still_says_what_happened():
    assert memory_shortage("killed due to the node running low on memory") == (
        "a node",
        "its memory ran out",
    )


def test_it_is_found_behind_what_tune_raises():
    from ray.exceptions import OutOfMemoryError

    raised = RuntimeError("Caught unexpected exception")
    raised.__cause__ = OutOfMemoryError(TEXT)
    problem = memory_problem(raised)
    assert problem is not None
    assert str(problem).startswith("node 192.0.2.2: its memory ran out")
    assert "search.concurrent" in problem.hint
