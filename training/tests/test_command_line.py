"""What the trainer's command refuses before anything is fitted."""

import pytest

from training.__main__ import command_line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--collages", "1.5"),
        ("--collages", "-0.1"),
        ("--scenes", "0"),
        ("--batch", "0"),
        ("--flow-minutes", "-1"),
        ("--reading-minutes", "nan"),
        ("--decoder-minutes", "-0.5"),
        ("--autoencoder-minutes", "inf"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(capsys, option, value):
    with pytest.raises(SystemExit):
        command_line().parse_args([f"{option}={value}"])

    assert f"argument {option}: {value} is not" in capsys.readouterr().err


def test_a_fit_of_no_minutes_and_a_batch_without_collages_are_asked_for_plainly():
    options = command_line().parse_args(["--reading-minutes", "0", "--collages", "0"])

    assert (options.reading_minutes, options.composites) == (0, 0)
