//! Congestion control over a set of paths, in virtual time: `make bench ARGS=--paths`.
//!
//! Prints one table in Markdown. Each controller alone on each path, then each beside a flow of CUBIC, which begins with it,
//! for 60 seconds. The processor time that it takes has no influence on the figures.

#![allow(clippy::print_stdout, reason = "its output is read by benchmarks/run.py")]

#[path = "../tests/paths/mod.rs"]
mod paths;

use std::io::Write;

use paths::{CONTROLLERS, Flow, SECONDS, SET, run};

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
}
