//! Windows that begin small and grow: they hold back neither slow start nor a path that loses packets.

use crate::paths::{DEFAULT, Flow, Path, path, run_with};

const BUDGET: Option<u64> = Some(1 << 30);

/// Megabits per second of one flow in each of the first `seconds`, mean of `seeds`.
fn goodput(path: Path, seconds: usize, seeds: u64, budget: Option<u64>) -> Vec<f64> {
    let outcomes: Vec<_> =
        (1..=seeds).map(|seed| run_with(path, &[Flow::bulk(DEFAULT)], seconds, seed, budget)).collect();
    (0..seconds)
        .map(|second| outcomes.iter().map(|o| o.goodput(0, second, second + 1)).sum::<f64>() / seeds as f64)
        .collect()
}

/// A path is as quick with the budget as without one, to within a share that is left to chance.
fn is_no_slower(path: Path, seconds: usize, seeds: u64, chance: f64) {
    let [with, without] = [BUDGET, None].map(|budget| goodput(path, seconds, seeds, budget));
    let [with, without] = [with, without].map(|figures| figures.iter().sum::<f64>());
    assert!(with >= (1.0 - chance) * without, "{}: {with:.1} against {without:.1}", path.name);
}

#[test]
fn a_far_path_is_filled_as_soon_as_with_full_windows() {
    let far = Path::new("far", 100.0, 50.0, 0.0, 1_250_000);
    is_no_slower(far, 1, 1, 0.01);
    is_no_slower(far, 5, 1, 0.01);
}

#[test]
fn paths_that_lose_packets_are_no_slower_than_with_full_windows() {
    for name in ["far-lossy", "near-lossy", "wild"] {
        is_no_slower(path(name), 5, 12, 0.05);
    }
}
