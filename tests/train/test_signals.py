import os
import signal
import threading

import pytest

from blankfill.train.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_wish_and_a_second_one_ends_at_once(number, caplog, monkeypatch):
    monkeypatch.setattr("blankfill.train.signals.ECHO_SECONDS", 0.0)
    # The tests themselves may run under nohup, which has a hang-up ignored.
    wish, before = threading.Event(), signal.signal(number, signal.default_int_handler)
    try:
        with stop_on_signals(wish, lambda: "what is at hand"):
            os.kill(os.getpid(), number)
            assert wish.is_set()
            assert "finishing what is at hand, then saving" in caplog.text
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_what_a_launcher_passes_on_is_the_same_wish(monkeypatch):
    monkeypatch.setattr("blankfill.train.signals.ECHO_SECONDS", 60.0)
    wish = threading.Event()
    with stop_on_signals(wish):
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert wish.is_set()


def test_a_run_under_nohup_does_not_hear_that_its_terminal_closed():
    wish, before = threading.Event(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(wish):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not wish.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_signals_stay_as_they_are():
    found = []

    def run():
        with stop_on_signals(threading.Event()):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
