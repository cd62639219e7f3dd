#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| atonce_fuzz::targets::rendezvous_client::run(data));
