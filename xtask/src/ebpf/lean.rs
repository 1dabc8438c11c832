//! An eBPF object without its debug information, which only the linker needs: it makes BTF from it.
//!
//! Two thirds of an object are debug information, and whoever loads the object reads all of it. Changes nothing else: the
//! sections that stay keep their numbers. Standard library only.

use std::ops::Range;

/// Offsets and sizes of ELF64 (elf(5)).
const HEADER: usize = 64;
const SECTIONS_AT: Range<usize> = 0x28..0x30;
const SEGMENTS: Range<usize> = 0x38..0x3a;
const SECTIONS: Range<usize> = 0x3c..0x3e;
const NAMES: Range<usize> = 0x3e..0x40;
const ENTRY: usize = 64;
/// Of a section's entry.
const NAME: Range<usize> = 0..4;
const KIND: Range<usize> = 4..8;
const OFFSET: Range<usize> = 24..32;
const SIZE: Range<usize> = 32..40;
const ALIGNMENT: Range<usize> = 48..56;
/// `SHT_NULL` and `SHT_NOBITS`: sections without bytes in the file.
const WITHOUT_BYTES: [usize; 2] = [0, 8];

/// `object` without the sections of debug information, in whose place there are empty ones. `None`: it is no relocatable
/// object of 64 bits.
pub(super) fn without_debug_information(object: &[u8]) -> Option<Vec<u8>> {
    if object.get(..6)? != b"\x7fELF\x02\x01" || number(object, SEGMENTS)? != 0 {
        return None;
    }
    let at = number(object, SECTIONS_AT)?;
    let table = object.get(at..at.checked_add(number(object, SECTIONS)?.checked_mul(ENTRY)?)?)?;
    let mut entries: Vec<Vec<u8>> = table.chunks(ENTRY).map(<[u8]>::to_vec).collect();
    let names = bytes(object, entries.get(number(object, NAMES)?)?)?;
    let mut lean = object.get(..HEADER)?.to_vec();
    for entry in &mut entries {
        if is_debug_information(names.get(number(entry, NAME)?..)?) {
            entry.fill(0);
        } else if !WITHOUT_BYTES.contains(&number(entry, KIND)?) {
            lean.resize(lean.len().next_multiple_of(number(entry, ALIGNMENT)?.max(1)), 0);
            let offset = lean.len();
            lean.extend_from_slice(bytes(object, entry)?);
            put(entry, OFFSET, offset)?;
        }
    }
    lean.resize(lean.len().next_multiple_of(8), 0);
    let at = lean.len();
    put(&mut lean, SECTIONS_AT, at)?;
    lean.extend(entries.into_iter().flatten());
    Some(lean)
}

/// Is that a section's name, with whatever follows it, of debug information or of what belongs to such a section?
fn is_debug_information(name: &[u8]) -> bool {
    name.starts_with(b".debug_") || name.starts_with(b".rel.debug_")
}

/// The bytes of the section with this entry.
fn bytes<'a>(object: &'a [u8], entry: &[u8]) -> Option<&'a [u8]> {
    let offset = number(entry, OFFSET)?;
    object.get(offset..offset.checked_add(number(entry, SIZE)?)?)
}

fn number(bytes: &[u8], at: Range<usize>) -> Option<usize> {
    let bytes = bytes.get(at)?;
    usize::try_from(bytes.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))).ok()
}

fn put(bytes: &mut [u8], at: Range<usize>, number: usize) -> Option<()> {
    let number = (number as u64).to_le_bytes();
    bytes.get_mut(at).map(|place| place.copy_from_slice(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object with these sections, the names' among them.
    fn object(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut bytes = vec![0; HEADER];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut entries = vec![vec![0; ENTRY]];
        for (name, content) in sections.iter().copied().chain([(".strtab", &[][..])]) {
            let mut entry = vec![0; ENTRY];
            put(&mut entry, NAME.start..NAME.start + 8, names.len()).unwrap();
            put(&mut entry, KIND.start..KIND.start + 8, 1).unwrap();
            put(&mut entry, ALIGNMENT, 4).unwrap();
            names.extend(name.bytes().chain([0]));
            put(&mut entry, OFFSET, bytes.len()).unwrap();
            let content = if name == ".strtab" { &names } else { content };
            put(&mut entry, SIZE, content.len()).unwrap();
            bytes.extend_from_slice(content);
            entries.push(entry);
        }
        let at = bytes.len();
        put(&mut bytes, SECTIONS_AT, at).unwrap();
        for place in [SECTIONS, NAMES] {
            let number = if place == SECTIONS { entries.len() } else { entries.len() - 1 };
            bytes[place].copy_from_slice(&u16::try_from(number).unwrap().to_le_bytes());
        }
        bytes.extend(entries.into_iter().flatten());
        bytes
    }

    fn sections(object: &[u8]) -> Vec<(String, Vec<u8>)> {
        let at = number(object, SECTIONS_AT).unwrap();
        let entries: Vec<_> = object[at..].chunks(ENTRY).collect();
        let names = bytes(object, entries[number(object, NAMES).unwrap()]).unwrap();
        let name = |entry: &[u8]| {
            let name = names[number(entry, NAME).unwrap()..].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(name.to_vec()).unwrap()
        };
        entries.iter().map(|entry| (name(entry), bytes(object, entry).unwrap().to_vec())).collect()
    }

    #[test]
    fn debug_information_goes_and_all_else_stays_in_its_place() {
        let whole =
            object(&[("tc", b"code."), (".debug_info", &[7; 999]), (".rel.debug_info", b"r"), (".BTF", b"types")]);
        let lean = without_debug_information(&whole).unwrap();
        assert!(lean.len() < whole.len() - 990, "{} of {}", lean.len(), whole.len());
        for (before, after) in sections(&whole).into_iter().zip(sections(&lean)) {
            let is_kept = !before.0.contains("debug");
            assert_eq!(after, if is_kept { before } else { Default::default() });
        }
        assert_eq!(without_debug_information(&lean).unwrap(), lean);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let whole = object(&[("tc", b"code")]);
        for cut in 0..whole.len() {
            assert_eq!(without_debug_information(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(without_debug_information(b"#!/bin/sh"), None);
    }
}
