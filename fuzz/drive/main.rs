//! Hands what the fuzzer makes to the target named in `FUZZ_TARGET`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let target = fuzz::TARGETS.iter().find(|target| target.name == name).expect("FUZZ_TARGET is a known target");
    (target.run)(bytes);
});
