import pytest

from mimik.config import REGIONS, AnimateConfig, InputError, ModelError, counted, parse_regions


def test_regions_are_all_or_a_list():
    assert parse_regions("all") == REGIONS
    assert parse_regions("eyes, lips") == ("lips", "eyes")


@pytest.mark.parametrize("text", ["", ",", "lips,ears"])
def test_unknown_or_empty_regions_say_what_is_accepted(text):
    with pytest.raises(InputError, match="separated by commas"):
        parse_regions(text)


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("strength", -1.0, "--strength"),
        ("strength", float("nan"), "--strength"),
        ("smooth", 2.0, "--smooth"),
        ("quality", 99, "--quality"),
        ("size", 8, "--size"),
        ("fps", 0.0, "--fps"),
        ("fps", 1e9, "--fps"),
        ("face", 0, "--face"),
        ("driver_face", -2, "--driver-face"),
        ("motion", "wild", "--motion"),
        ("frame", "half", "--frame"),
        ("regions", ("ears",), "--regions"),
    ],
)
def test_absurd_settings_name_their_option(field, value, option):
    with pytest.raises(InputError, match=option):
        AnimateConfig(**{field: value})


def test_unknown_model_is_a_model_error():
    with pytest.raises(ModelError, match=r"use texture or geometry, or a \.safetensors file"):
        AnimateConfig(model="magic")


def test_unknown_keys_are_errors():
    with pytest.raises(TypeError):
        AnimateConfig(color="red")


def test_counted() -> None:
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
