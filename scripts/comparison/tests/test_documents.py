import tempfile
import unittest
from pathlib import Path
from unittest import mock

from comparison import documents

from .sample_result import sample_result


class Documents(unittest.TestCase):
    """In a project of their own: a README and docs/benchmarks."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.benchmarks = self.root / "docs" / "benchmarks"
        self.benchmarks.mkdir(parents=True)
        empty = "before\n<!-- scripts/compare none line -->\n<!-- end of line -->\nafter\n"
        for document in (self.root / "README.md", self.benchmarks / "README.md"):
            document.write_text(empty)
        for name, value in (("ROOT", self.root), ("BENCHMARKS", self.benchmarks)):
            patch = mock.patch.object(documents, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_a_published_result_is_shown_and_passes_the_check(self):
        documents.publish(sample_result())
        shown = (self.root / "README.md").read_text()
        self.assertTrue(shown.startswith("before\n") and shown.endswith("after\n"))
        self.assertIn("(docs/benchmarks/results/2026-11-25-2240-012345678.json)", shown)
        self.assertIn("(results/", (self.benchmarks / "README.md").read_text())
        self.assertEqual(documents.check(), [])

    def test_a_project_that_shows_nothing_yet_passes_the_check(self):
        self.assertEqual(documents.check(), [])

    def test_a_figure_changed_by_hand_is_found(self):
        documents.publish(sample_result())
        readme = self.root / "README.md"
        readme.write_text(readme.read_text().replace("3 rounds", "4 rounds"))
        (finding,) = documents.check()
        self.assertIn("README.md: line: is not what 2026-11-25-2240-012345678.json says", finding)

    def test_a_plot_changed_by_hand_is_found(self):
        documents.publish(sample_result())
        plot = self.benchmarks / "cost.svg"
        plot.write_text(plot.read_text().replace("80.0 µs", "8.0 µs"))
        (finding,) = documents.check()
        self.assertIn("cost.svg", finding)

    def test_a_result_that_is_not_there_is_found(self):
        documents.publish(sample_result())
        for file in (self.benchmarks / "results").iterdir():
            file.unlink()
        self.assertIn("No such file", documents.check()[0])

    def test_a_result_of_sources_that_are_in_no_commit_is_found(self):
        documents.publish(sample_result(modified=True))
        self.assertIn("not in its commit", documents.check()[0])

    def test_a_run_of_one_measurement_leaves_the_sections_of_others_as_they_are(self):
        page = self.benchmarks / "README.md"
        sections = "".join(
            f"<!-- scripts/compare none {name} -->\n<!-- end of {name} -->\n"
            for name in ("goals", "storm_goals", "storm_line")
        )
        page.write_text(sections)
        documents.publish(sample_result())
        samples = [
            sample | {"measurement": "storm"} for sample in sample_result().data["samples"]
        ]
        later = sample_result(date="2026-11-26T01:00:00Z", samples=samples)
        documents.publish(later)
        shown = page.read_text()
        self.assertIn("<!-- scripts/compare 2026-11-25-2240-012345678.json goals -->", shown)
        for name in ("storm_goals", "storm_line"):
            self.assertIn(f"<!-- scripts/compare 2026-11-26-0100-012345678.json {name} -->", shown)
        plots = [(self.benchmarks / f"{name}.svg").read_text() for name in ("cost", "storm")]
        self.assertIn("2026-11-25-2240", plots[0])
        self.assertIn("2026-11-26-0100", plots[1])
        self.assertEqual(documents.check(), [])

    def test_a_report_of_its_own_leaves_the_project_alone(self):
        before = (self.root / "README.md").read_text()
        with tempfile.TemporaryDirectory() as directory:
            written = documents.write_report(sample_result(), Path(directory))
            self.assertTrue(all(path.is_relative_to(directory) for path in written))
            self.assertIn("Medians of 3 rounds", (Path(directory) / "README.md").read_text())
        self.assertEqual((self.root / "README.md").read_text(), before)
