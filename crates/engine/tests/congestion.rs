//! The default congestion control against the others offered, in virtual time.

use std::time::Duration;

use crate::paths::{CONTROLLERS, DEFAULT, Flow, Load, Outcome, Path, SECONDS, SET, path, run};

/// Of the best that is offered.
const GOOD: f64 = 0.8;
/// Of the bottleneck, for a flow of CUBIC beside the default.
const FAIR: f64 = 0.35;

fn flows(path: Path, flows: &[Flow]) -> Outcome {
    run(path, flows, SECONDS, 1)
}

fn check_speed(path: Path) {
    let speeds = CONTROLLERS.map(|name| flows(path, &[Flow::bulk(name)]).goodput(0, 0, SECONDS));
    let best = speeds.iter().copied().fold(0.0, f64::max);
    let position = CONTROLLERS.iter().position(|name| *name == DEFAULT).expect("offered");
    assert!(speeds[position] >= GOOD * best, "{}: {CONTROLLERS:?} {speeds:?} Mbit/s", path.describe());
}

/// A flow of CUBIC has its share of the bottleneck, or, where losses by chance keep it below, most of what another flow of
/// CUBIC would have left it. Both are means of so many runs, the second of six times as many: what chance leaves such a flow
/// differs by a third from one run to the next.
fn check_fairness(path: Path, runs: u64) {
    let fair = FAIR * path.rate;
    let mean = |order: [&'static str; 2], flow, runs| {
        let goodput = |seed| run(path, &order.map(Flow::bulk), SECONDS, seed).goodput(flow, 0, SECONDS);
        (1..=runs).map(goodput).sum::<f64>() / runs as f64
    };
    for order in [[DEFAULT, "cubic"], ["cubic", DEFAULT]] {
        let cubic = order.iter().position(|name| *name == "cubic").expect("there");
        if mean(order, cubic, runs) < fair {
            let [beside, usual] = [order, ["cubic"; 2]].map(|order| mean(order, cubic, 6 * runs));
            assert!(
                beside >= GOOD * usual && usual < fair / GOOD,
                "{}: {beside:.2} beside {DEFAULT}, {usual:.2} beside cubic Mbit/s",
                path.describe()
            );
        }
    }
}

#[test]
fn losses_by_chance_do_not_slow_the_default() {
    check_speed(path("thin-lossy"));
    check_speed(path("wild"));
}

#[test]
fn a_cubic_flow_beside_the_default_keeps_its_share() {
    check_fairness(path("home"), 1);
    check_fairness(path("bloat"), 1);
    check_fairness(path("thin-lossy"), 1);
}

#[test]
fn a_queue_too_short_to_be_seen_still_counts() {
    // Eight packets, less than one burst: nobody waits for long, and what is lost is lost to congestion.
    check_fairness(Path::new("policer", 20.0, 20.0, 0.0, 12_000), 1);
}

#[test]
fn a_flow_that_starts_later_gets_its_share() {
    let outcome = flows(path("home"), &[Flow::bulk(DEFAULT), Flow::bulk(DEFAULT).after(10.0)]);
    let (first, second) = (outcome.goodput(0, 30, SECONDS), outcome.goodput(1, 30, SECONDS));
    assert!(second >= 0.35 * (first + second), "{first} {second}");
}

#[test]
fn a_long_queue_is_not_filled_where_nobody_else_fills_it() {
    let alone = flows(path("bloat"), &[Flow::bulk(DEFAULT)]);
    let both = flows(path("bloat"), &[Flow::bulk(DEFAULT), Flow::bulk(DEFAULT).after(10.0)]);
    assert!(alone.wait95 < 120.0 && both.wait95 < 150.0, "{} {} ms of 800", alone.wait95, both.wait95);
}

#[test]
fn what_is_sent_now_and_then_does_not_flood_the_path() {
    let burst = Flow { load: Load::Bursts(100_000, Duration::from_millis(500)), ..Flow::bulk(DEFAULT) };
    let outcome = flows(path("home"), &[burst]);
    let delivered: u64 = outcome.delivered[0].iter().sum();
    assert!(delivered >= 100_000 * 119, "{delivered}");
    assert!(outcome.dropped == 0.0, "{}", outcome.dropped);
}

#[test]
#[ignore = "takes minutes of processor time: cargo test -p wtio-engine --test all congestion:: -- --include-ignored"]
fn the_default_is_near_the_best_and_fair_on_every_path() {
    for path in SET {
        check_speed(*path);
        check_fairness(*path, 4);
    }
}
