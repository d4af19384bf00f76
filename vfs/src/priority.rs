//! Which threads the system prefers.

/// Adds `nice` (0 to 19) to the calling thread's nice value: where threads compete for cores, it gets less of them. Never
/// taken back without privileges. Best effort: where it is refused, or the system has no nice value for each thread,
/// nothing happens.
pub fn lower_thread_priority(nice: u8) {
    #[cfg(target_os = "linux")]
    {
        // No process means the calling thread here.
        let now = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, (now + i32::from(nice)).min(19));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_is_lowered_and_those_that_it_starts() {
        let now = || rustix::process::getpriority_process(None).unwrap();
        let before = now();
        let lowered = std::thread::spawn(move || {
            lower_thread_priority(3);
            lower_thread_priority(200);
            (now(), std::thread::spawn(now).join().unwrap())
        });
        assert_eq!(lowered.join().unwrap(), (19, 19));
        assert_eq!(now(), before);
    }
}
