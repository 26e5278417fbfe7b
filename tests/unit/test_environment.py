"""A setting is known, of its type and within its bounds, or the process does not start."""

import pytest

from schemas.environment import VARIABLES, SettingError, read


def test_settings_are_read_by_name_with_their_types():
    env = {"HEADRACE_KAFKA": "127.0.0.1:9092", "HEADRACE_PARTITIONS": "8", "PATH": "/bin"}
    assert read(env, "HEADRACE_KAFKA", "HEADRACE_PARTITIONS", "HEADRACE_LOG_LEVEL") == {
        "kafka": "127.0.0.1:9092",
        "partitions": 8,
        "log_level": "info",
    }


def test_a_misspelt_variable_is_an_error_that_names_the_right_one():
    with pytest.raises(SettingError, match="did you mean HEADRACE_PARTITIONS"):
        read({"HEADRACE_PARTITONS": "8"}, "HEADRACE_LOG_LEVEL")


def test_a_missing_required_variable_says_what_it_is_for():
    with pytest.raises(SettingError, match="HEADRACE_KAFKA must be set: bootstrap servers"):
        read({}, "HEADRACE_KAFKA")


@pytest.mark.parametrize("text", ["0", "1025", "four", "4.0"])
def test_a_number_out_of_bounds_or_form_is_an_error(text):
    with pytest.raises(SettingError, match="HEADRACE_PARTITIONS"):
        read({"HEADRACE_PARTITIONS": text}, "HEADRACE_PARTITIONS")


def test_every_default_lies_within_its_own_bounds():
    for variable in VARIABLES.values():
        if isinstance(variable.default, int):
            assert variable.parse(str(variable.default)) == variable.default
