#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wtio_fuzz::fuzzing::rewrite_frames(data));
