"""What a bench says at its end: one JSON object on the last line, aims judged as stated."""

import io
import json

import pytest

from loadtest.bench.report import Report


def finished(report):
    out = io.StringIO()
    report.finish(out)
    return out.getvalue()


def test_the_last_line_is_one_json_object_of_the_agreed_shape():
    report = Report("streams", "events/s", headline=12345.678)
    report.results.append({"leg": "plain", "rate": 1.23456789})
    report.against = {"peer": 3.0}
    report.at_most("cost", 1.2, 1.5, "x")
    line = json.loads(finished(report).splitlines()[-1])
    assert list(line) == ["bench", "machine", "headline", "unit", "results", "against", "aims"]
    assert line["headline"] == 12345.7
    assert line["results"] == [{"leg": "plain", "rate": 1.235}]
    assert line["against"] == {"peer": 3.0}
    assert line["aims"] == [{"name": "cost", "aim": "<= 1.5 x", "measured": 1.2, "ok": True}]


@pytest.mark.parametrize("measured", [1.9, 2.0, 2.1])
@pytest.mark.parametrize("bound", ["at_most", "at_least"])
def test_an_aim_is_met_up_to_its_bound(bound, measured):
    met = measured == 2.0 or (measured < 2.0) == (bound == "at_most")
    report = Report("b", "u")
    getattr(report, bound)("name", measured, 2.0)
    assert report.aims[0].ok is met


def test_what_was_not_measured_is_not_met():
    report = Report("b", "u")
    report.at_most("no peer here", None, 1.0)
    assert not report.aims[0].ok
    assert report.aims[0].measured is None
    assert "-" in finished(report)
