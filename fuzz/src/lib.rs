//! Shared code of the fuzz targets: mutators for structured input, and rules for every result.
//!
//! Each target in `targets/` takes one document (JSON or YAML, PEM for certificates), calls the public functions that
//! read such input in production, and asserts more than the absence of panics: bounds, legal names, a second pass without
//! changes, and a status that is valid for the CustomResourceDefinition.

pub mod json;
pub mod rules;
pub mod template;

use std::time::Duration;

/// The signal stack that a stack overflow is reported on.
const SIGNAL_STACK: usize = 64 * 1024;

/// Prepares the process before the first input: libFuzzer's signal handlers run on a separate stack, so that a stack overflow does
/// not end the process before the input is saved.
///
/// # Panics
/// When the system refuses.
pub fn init() {
    let stack = Box::leak(vec![0_u8; SIGNAL_STACK].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: the memory is never freed, and nothing else uses it. A zeroed action is valid: the default, without flags.
    let refused = unsafe {
        // libFuzzer keeps this flag when it installs its handler.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaltstack(&raw const stack, std::ptr::null_mut())
            | libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(refused, 0, "the signal stack");
}

/// The CPU time of the process, which does not depend on the load of the machine.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local value of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
