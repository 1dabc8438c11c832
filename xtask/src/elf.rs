//! Whether a program needs a dynamic loader. Reads the ELF64 program headers and nothing else.

/// `PT_INTERP` of the ELF specification: the segment that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// True when the program names a loader; an error when the bytes are not a little-endian ELF64 file.
///
/// A static position-independent program has a dynamic section and no interpreter, so the interpreter decides.
pub(crate) fn needs_loader(file: &[u8]) -> Result<bool, &'static str> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a little-endian ELF64 file");
    }
    let table = number::<8>(file, 0x20).and_then(|offset| usize::try_from(offset).ok());
    let entry_size = number::<2>(file, 0x36).and_then(|size| usize::try_from(size).ok());
    let entries = number::<2>(file, 0x38).and_then(|count| usize::try_from(count).ok());
    let (Some(table), Some(entry_size), Some(entries)) = (table, entry_size, entries) else {
        return Err("the ELF header is cut off");
    };
    for index in 0..entries {
        let at = entry_size.checked_mul(index).and_then(|offset| offset.checked_add(table));
        match at.and_then(|at| number::<4>(file, at)) {
            Some(kind) if kind == u64::from(PT_INTERP) => return Ok(true),
            Some(_) => {}
            None => return Err("the program headers are cut off"),
        }
    }
    Ok(false)
}

fn number<const BYTES: usize>(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(BYTES)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kinds: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 64;
        file[0x36] = 56;
        file[0x38] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn the_interpreter_decides() {
        assert_eq!(needs_loader(&program(&[1, 2])), Ok(false));
        assert_eq!(needs_loader(&program(&[1, 3, 2])), Ok(true));
    }

    #[test]
    fn what_is_not_a_program_is_refused() {
        assert!(needs_loader(b"#!/bin/sh\n").is_err());
        assert!(needs_loader(b"").is_err());
        let whole = program(&[1, 2]);
        assert!(needs_loader(&whole[..70]).is_err());
        assert!(needs_loader(&whole[..10]).is_err());
    }

    #[test]
    fn this_very_test_needs_a_loader_only_if_built_so() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(needs_loader(&own), Ok(!cfg!(target_feature = "crt-static")));
    }
}
