//! Is this what was written? One sum for all files of ours that must tell, and the same in every version.

/// FNV-1a, 64 bits: it finds what was torn or changed, not what was forged; whoever can write our files is root.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_sum_is_the_same_in_every_version() {
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
