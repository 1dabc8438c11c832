//! What hostile input looks like in tests: a good text, changed a little, many times, the same way at every run.
//!
//! Compiled into tests only.

/// Calls `look` with `rounds` mutations of `good`.
pub(crate) fn of(good: &str, rounds: usize, mut look: impl FnMut(&[u8])) {
    const SPARE: &[u8] = b"{}[]\",:0129-ntfe\\/.@=; \xff\x00";
    let mut seed = 0x2545_f491_u64;
    let mut next = move |most: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % most.max(1) as u64).unwrap_or_default()
    };
    for _ in 0..rounds {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(8) {
                0 => bytes.truncate(at.max(1)),
                1 | 2 if bytes.len() > 1 => drop(bytes.remove(at)),
                3 | 4 => bytes.insert(at, SPARE[next(SPARE.len())]),
                _ => bytes[at] = SPARE[next(SPARE.len())],
            }
        }
        look(&bytes);
    }
}
