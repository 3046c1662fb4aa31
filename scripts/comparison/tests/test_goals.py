import unittest

from comparison.goals import GOALS

from .sample_result import sample_result

_BY_FIGURE = {goal.figure.key: goal for goal in GOALS}


class Goals(unittest.TestCase):
    def test_a_goal_beside_a_peer_is_a_ratio_of_medians(self):
        goal = _BY_FIGURE["full_ecdsa"]
        self.assertAlmostEqual(goal.reached(sample_result()), 80.0 / 240.0)
        self.assertTrue(goal.holds(sample_result()))

    def test_the_hybrid_group_is_held_against_the_classic_one(self):
        self.assertAlmostEqual(
            _BY_FIGURE["full_ecdsa_hybrid"].reached(sample_result()), 100.0 / 240.0
        )

    def test_bulk_is_held_against_the_relay_without_tls(self):
        goal = _BY_FIGURE["bulk_down"]
        self.assertAlmostEqual(goal.reached(sample_result()), 800.0 / 780.0)
        self.assertFalse(goal.holds(sample_result()))

    def test_a_goal_in_its_own_unit_is_the_median(self):
        self.assertEqual(_BY_FIGURE["idle_memory"].reached(sample_result()), 1.5)

    def test_of_goodput_more_is_better(self):
        self.assertTrue(_BY_FIGURE["storm_goodput_ratio"].holds(sample_result()))

    def test_what_was_not_measured_is_neither_reached_nor_missed(self):
        self.assertIsNone(_BY_FIGURE["full_rsa"].holds(sample_result()))
