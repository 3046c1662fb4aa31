import tempfile
import unittest
from pathlib import Path

from comparison.result import Result, summarize

from .sample_result import sample_result


class Summaries(unittest.TestCase):
    def test_the_median_is_the_middle_value(self):
        self.assertEqual(summarize([3.0, 100.0, 1.0]).median, 3.0)

    def test_the_median_of_an_even_count_lies_between_the_middle_two(self):
        self.assertEqual(summarize([1.0, 2.0, 4.0, 100.0]).median, 3.0)

    def test_the_least_and_the_greatest_value_are_kept(self):
        summary = summarize([3.0, 5.0, 1.0])
        self.assertEqual((summary.minimum, summary.maximum, summary.count), (1.0, 5.0, 3))

    def test_of_nothing_there_is_no_summary(self):
        self.assertIsNone(summarize([]))

    def test_only_the_named_servers_figure_counts(self):
        self.assertEqual(sample_result().median("forebay", "full_ecdsa"), 80.0)
        self.assertIsNone(sample_result().median("plain", "full_ecdsa"))

    def test_a_sample_with_an_error_has_no_value_and_is_named(self):
        failed = {"measurement": "request", "server": "forebay", "round": 2, "error": "why"}
        result = sample_result(samples=[failed])
        self.assertIsNone(result.median("forebay", "request"))
        self.assertEqual(result.errors, ["forebay, request, round 2: why"])


class Files(unittest.TestCase):
    def test_a_result_is_read_as_it_was_written(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "results" / "some.json"
            sample_result().write(path)
            self.assertEqual(Result.read(path).data, sample_result().data)

    def test_each_sample_has_a_line(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "some.json"
            sample_result().write(path)
            lines = [line for line in path.read_text().splitlines() if '"round"' in line]
        self.assertEqual(len(lines), len(sample_result().data["samples"]))

    def test_names_sort_by_date_and_tell_the_commit_and_whether_it_is_true(self):
        self.assertEqual(sample_result().file_name, "2026-11-25-2240-012345678.json")
        modified = sample_result(modified=True)
        self.assertEqual(modified.file_name, "2026-11-25-2240-012345678-modified.json")

    def test_another_format_is_refused(self):
        with self.assertRaisesRegex(ValueError, "sample.json: not a result"):
            sample_result(format=99)
