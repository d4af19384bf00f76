#![allow(unsafe_code)] // The instruction takes an address; it reads nothing that the program could see.

//! Asking for memory before it is needed.

/// Bytes of a cache line.
pub const CACHE_LINE_BYTES: usize = 64;

/// Starts to load the cache line that holds byte `at`, and returns at once; nothing where `at` is past the end. Only a
/// hint: on processors other than x86-64 it does nothing.
#[inline(always)]
pub fn prefetch(bytes: &[u8], at: usize) {
    if let Some(byte) = bytes.get(at) {
        prefetch_value(byte);
    }
}

/// [`prefetch`] of every line of `start..start + len` up to `lines_max`.
#[inline(always)]
pub fn prefetch_range(bytes: &[u8], start: usize, len: usize, lines_max: usize) {
    let lines = len.div_ceil(CACHE_LINE_BYTES).min(lines_max);
    for line in 0..lines {
        prefetch(bytes, start + line * CACHE_LINE_BYTES);
    }
    if lines > 0 && lines < lines_max {
        // Unless it starts on a line, the range ends on one more.
        prefetch(bytes, start + len - 1);
    }
}

/// [`prefetch`] of the line where a value begins.
#[inline(always)]
pub fn prefetch_value<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: SSE is part of x86-64. The address is that of a live value, and a prefetch neither traps nor changes
    // anything.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            std::ptr::from_ref(value).cast(),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}
