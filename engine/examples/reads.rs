use std::sync::atomic::Ordering::Relaxed;
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
fn key(r: u64) -> [u8; 16] {
    let mut k = [b'0'; 16];
    k[..8].copy_from_slice(&r.to_be_bytes());
    k
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n: u64 = a[2].parse().unwrap();
    let db = siltstone::Db::open(&a[1]).unwrap();
    for i in 0..n {
        let r = (i.wrapping_mul(2654435761)) % n;
        db.put(key(r * 2), [mix(r) as u8; 100]).unwrap();
    }
    db.flush().unwrap();
    db.wait_idle().unwrap();
    println!("{:?}", db.metrics().levels);
    for _ in 0..3 {
        let (e, o) = (
            siltstone::ENTRY_AT.load(Relaxed),
            siltstone::IN_ORDER.load(Relaxed),
        );
        let t = std::time::Instant::now();
        for i in 0..1_000_000u64 {
            assert!(!db.contains_key(key((mix(i) % n) * 2 + 1)).unwrap());
        }
        println!(
            "miss {} entry_at {} in_order {}",
            t.elapsed().as_nanos() as u64 / 1_000_000,
            siltstone::ENTRY_AT.load(Relaxed) - e,
            siltstone::IN_ORDER.load(Relaxed) - o
        );
    }
}
