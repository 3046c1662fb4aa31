import unittest

from trials.statistics import median, ratio


class RatioTest(unittest.TestCase):
    def test_it_compares_neighbours_in_time(self):
        # The machine became twice as slow in the middle; the variant costs a tenth more.
        defaults = [10.0] * 20 + [20.0] * 20
        found = ratio([value * 1.1 for value in defaults], defaults)
        self.assertAlmostEqual(found.median, 1.1)
        self.assertFalse(found.is_noise)

    def test_what_scatters_around_one_is_noise(self):
        defaults = [10.0] * 9
        values = [9.0, 11.0, 9.5, 10.5, 10.0, 9.8, 10.2, 9.9, 10.1]
        found = ratio(values, defaults)
        self.assertTrue(found.low <= 1.0 <= found.high)
        self.assertTrue(found.is_noise)

    def test_the_bounds_narrow_with_more_rounds(self):
        few = ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5)
        many = ratio([1.0, 2.0, 3.0, 4.0, 5.0] * 20, [1.0] * 100)
        self.assertEqual((few.low, few.high), (1.0, 5.0))
        self.assertLess(many.high - many.low, few.high - few.low)

    def test_a_figure_that_was_not_taken_is_left_out(self):
        self.assertIsNone(ratio([None], [None]))
        self.assertIsNone(median([None]))
