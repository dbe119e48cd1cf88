#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wtio_fuzz::fuzzing::walk_frames(data));
