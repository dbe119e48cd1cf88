//! Congestion control over a set of paths, in virtual time: `make bench ARGS=--paths`.
//!
//! Prints two tables in Markdown. In the first each controller is alone on each path, then beside a flow of CUBIC, which
//! begins with it, for 60 seconds. The second has what else a path can be, and flows that are not alike, for the default
//! and for CUBIC. The processor time that it takes has no influence on the figures.

#![allow(clippy::print_stdout, reason = "its output is read by benchmarks/run.py")]

#[path = "../tests/paths/mod.rs"]
mod paths;
#[path = "../tests/support/shortcuts.rs"]
mod shortcuts;

use std::io::Write;

use paths::{CONTROLLERS, DEFAULT, Flow, Outcome, Path, SECONDS, SET, path, run};

/// What a controller gets, in words.
type Measure = fn(&'static str) -> String;

/// Seconds between the beginnings of two flows, and from when on both are looked at.
const LATE: f64 = 5.0;
const SETTLED: usize = 30;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let head = |before: &str| CONTROLLERS.map(|name| format!("{before}`{name}`")).join(" | ");
    println!("| path | {} | {} |", head(""), head("beside "));
    println!("| --- {}|", "| ---: ".repeat(2 * CONTROLLERS.len()));
    for path in SET.iter().filter(|path| wanted.is_empty() || wanted.iter().any(|name| name == path.name)) {
        print!("| {} ", path.describe());
        for name in CONTROLLERS {
            let outcome = run(*path, &[Flow::bulk(name)], SECONDS, 1);
            print!("| {:.1} ({:.0} ms) ", outcome.goodput(0, 0, SECONDS), outcome.wait);
            let _ = std::io::stdout().flush();
        }
        for name in CONTROLLERS {
            let outcome = run(*path, &[Flow::bulk(name), Flow::bulk("cubic")], SECONDS, 1);
            print!("| {:.1} : {:.1} ", outcome.goodput(0, 0, SECONDS), outcome.goodput(1, 0, SECONDS));
            let _ = std::io::stdout().flush();
        }
        println!("|");
    }
    if wanted.is_empty() || wanted.iter().any(|name| name == "others") {
        others();
    }
}

/// What else a path can be, and flows that are not alike.
fn others() {
    let rows: [(&str, Measure); 7] = [
        ("home, delay varies by ±5 ms", |name| alone(path("home").with_jitter(5.0), name)),
        ("near-lossy, delay varies by ±5 ms", |name| alone(path("near-lossy").with_jitter(5.0), name)),
        ("home, delay varies by ±5 ms, beside one of CUBIC", |name| {
            both(path("home").with_jitter(5.0), [Flow::bulk(name), Flow::bulk("cubic")], 0)
        }),
        ("gigabit: 1000 Mbit/s, 10 ms, 0.01 %, 1000 KB", |name| {
            alone(Path::new("gigabit", 1000.0, 10.0, 0.0001, 1_000_000), name)
        }),
        ("home, two flows of its kind, the second from 40 ms farther away each way", |name| {
            both(path("home"), [Flow::bulk(name), Flow::bulk(name).beyond(40.0)], SETTLED)
        }),
        ("short, a flow of CUBIC begins 5 s later", |name| late("short", name)),
        ("home, a flow of CUBIC begins 5 s later", |name| late("home", name)),
    ];
    println!();
    println!("| situation | `{DEFAULT}` | `cubic` |");
    println!("| --- | ---: | ---: |");
    for (situation, measure) in rows {
        println!("| {situation} | {} | {} |", measure(DEFAULT), measure("cubic"));
    }
}

fn alone(path: Path, name: &'static str) -> String {
    // A gigabit is a million packets in ten seconds.
    let seconds = if path.rate > 500.0 { SECONDS / 3 } else { SECONDS };
    format!("{:.1}", run(path, &[Flow::bulk(name)], seconds, 1).goodput(0, 0, seconds))
}

fn both(path: Path, flows: [Flow; 2], from: usize) -> String {
    shares(&run(path, &flows, SECONDS, 1), from)
}

fn late(name: &str, congestion: &'static str) -> String {
    both(path(name), [Flow::bulk(congestion), Flow::bulk("cubic").after(LATE)], SETTLED)
}

fn shares(outcome: &Outcome, from: usize) -> String {
    format!("{:.1} : {:.1}", outcome.goodput(0, from, SECONDS), outcome.goodput(1, from, SECONDS))
}
