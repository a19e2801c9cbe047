"""Validation of the command line."""

import pytest

from training.__main__ import command_line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--composites", "1.5"),
        ("--composites", "-0.1"),
        ("--scenes", "0"),
        ("--batch", "0"),
        ("--flow-minutes", "-1"),
        ("--text-encoder-minutes", "nan"),
        ("--decoder-minutes", "-0.5"),
        ("--autoencoder-minutes", "inf"),
    ],
)
def test_invalid_option_value_is_rejected_by_name(capsys, option, value):
    with pytest.raises(SystemExit):
        command_line().parse_args([f"{option}={value}"])

    assert f"argument {option}: {value} is not" in capsys.readouterr().err


def test_zero_minutes_and_zero_composites_are_valid():
    options = command_line().parse_args(["--text-encoder-minutes", "0", "--composites", "0"])

    assert (options.text_encoder_minutes, options.composites) == (0, 0)
