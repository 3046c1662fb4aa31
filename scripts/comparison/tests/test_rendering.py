import unittest
import xml.etree.ElementTree

from comparison import plots, tables
from comparison.result import Result

from .sample_result import sample_result


def _rows(table: str) -> dict[str, list[str]]:
    """The cells of each row, by the first one."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {row[0]: row[1:] for row in rows}


class Tables(unittest.TestCase):
    def test_servers_stand_side_by_side_with_the_ratio_to_haproxy(self):
        rows = _rows(tables.servers(sample_result()))
        self.assertEqual(
            rows["full connection, ECDSA P-256, X25519, µs"], ["80.0", "240.0", "", "0.33"]
        )

    def test_a_figure_that_a_server_lacks_leaves_its_cell_empty(self):
        rows = _rows(tables.servers(sample_result()))
        self.assertEqual(
            rows["full connection, ECDSA P-256, X25519MLKEM768, µs"], ["100.0", "", "", ""]
        )

    def test_a_figure_that_nobody_has_leaves_its_row_out(self):
        self.assertNotIn("RSA-2048", tables.servers(sample_result()))

    def test_a_goal_shows_bound_ratio_and_both_values(self):
        rows = _rows(tables.goals(sample_result()))
        self.assertEqual(
            rows["download, 1 GB"],
            ["≤ 1 × HAProxy, plain TCP", "1.03", "800 ms", "780 ms", "1,200 (HAProxy)"]
            + ["**missed**"],
        )
        self.assertEqual(rows["memory of an idle connection (PSS)"][0], "≤ 2 KiB")

    def test_spread_is_the_least_and_the_greatest_value(self):
        rows = _rows(tables.spread(sample_result()))
        self.assertEqual(
            rows["full connection, ECDSA P-256, X25519, µs"][0], "80.0 (78.0–90.0)"
        )

    def test_the_line_names_commit_machine_and_file(self):
        line = tables.line(sample_result())
        for part in ("012345678;", "2 CPUs", "6.18.1", "2026-11-25", "sample.json"):
            self.assertIn(part, line)

    def test_every_row_of_every_table_has_as_many_cells_as_its_head(self):
        for name, section in tables.SECTIONS.items():
            rows = [row for row in section(sample_result()).splitlines() if row.startswith("|")]
            self.assertLessEqual(len({row.count("|") for row in rows}), 1, name)


class Plots(unittest.TestCase):
    def test_every_plot_is_well_formed(self):
        for plot in plots.PLOTS.values():
            xml.etree.ElementTree.fromstring(plot(sample_result()))

    def test_every_plot_can_be_made_of_a_result_without_its_figures(self):
        empty = sample_result(samples=[])
        for plot in plots.PLOTS.values():
            xml.etree.ElementTree.fromstring(plot(empty))

    def test_a_server_of_the_operators_own_gets_a_bar(self):
        own = {"name": "mine", "title": "mine", "version": "", "plain": False}
        data = dict(sample_result().data)
        data["servers"] = [*data["servers"], own]
        sample = {"server": "mine", "measurement": "full_ecdsa", "round": 1, "reports": {}}
        data["samples"] = [*data["samples"], sample | {"values": {"full_ecdsa": 123.4}}]
        self.assertIn("123.4 µs", plots.cost(Result(data, "sample.json")))
