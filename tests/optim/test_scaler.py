from blankfill.optim.scaler import LossScaler

# By hand, after the published rule: hysteresis 2, window 3, doubling and halving.
HAND_RUN = [
    # overflow, scale afterwards
    (True, 65536.0),  # the first overflow is borne
    (True, 32768.0),
    (True, 16384.0),  # patience comes back only when the scale has grown
    (False, 16384.0),
    (False, 16384.0),
    (False, 32768.0),  # three good steps in a row
    (True, 32768.0),  # patience was restored
    (False, 32768.0),
    (False, 32768.0),
    (True, 16384.0),  # good steps start anew at an overflow
    (False, 16384.0),
    (False, 16384.0),
    (False, 32768.0),
]


def test_the_scale_follows_the_published_rule():
    scaler = LossScaler(window=3)
    scales = []
    for overflow, _ in HAND_RUN:
        scaler.update(overflow=overflow)
        scales.append(scaler.scale)
    assert scales == [scale for _, scale in HAND_RUN]


def test_the_scale_never_falls_below_one():
    scaler = LossScaler()
    for _ in range(17):
        assert not scaler.exhausted
        scaler.update(overflow=True)
    assert scaler.scale == 1.0
    scaler.update(overflow=True)
    assert scaler.scale == 1.0
    assert scaler.exhausted


def test_a_scaler_goes_on_from_its_state():
    first, second = LossScaler(window=3), LossScaler(window=3)
    for overflow in (True, False, False):
        first.update(overflow=overflow)
    second.load(first.state())
    for overflow in (False, True, True):
        first.update(overflow=overflow)
        second.update(overflow=overflow)
    assert second.state() == first.state()
