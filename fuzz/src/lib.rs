//! What the fuzz targets share: mutators that know the form of the input, and the rules that every answer must meet.
//!
//! Each target in `targets/` takes one document (JSON or YAML, PEM for certificates), hands it to the public functions that
//! read such input in production, and asserts more than the absence of panics: bounds, legal names, a second pass that
//! changes nothing, and a status that the CustomResourceDefinition admits.

pub mod json;
pub mod rules;
pub mod template;

use std::time::Duration;

/// The signal stack that a stack overflow is reported on.
const SIGNAL_STACK: usize = 64 * 1024;

/// Prepares the process, before the first input: libFuzzer's signal handlers run on a stack of their own from now on, so that
/// a stack overflow does not end the process before the input is written down.
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

/// What the process has computed so far. Other than the time of day it does not depend on what else the machine does.
pub fn computed() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local value of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
