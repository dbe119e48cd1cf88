//! All tests of the engine, in one program: each as a program of its own would compile and link the engine once more.

mod amplification;
mod certificates;
mod closing;
mod congestion;
mod ecn;
mod gaps;
mod hello;
mod late;
mod memory;
mod newcomers;
mod pair;
mod paths;
mod places;
mod qlog;
mod reset_at;
mod restart;
mod rough;
mod support;
mod totals;
mod windows;

use support::shortcuts;
