//! Many byte strings in one allocation: what a `Vec<Vec<u8>>` would be, without an allocation
//! each, in the order of pushing.

/// A list of byte strings, stored end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteStrings {
    bytes: Vec<u8>,
    /// `ends[i]` is where string `i` ends in `bytes`; it starts where string `i - 1` ends.
    ends: Vec<usize>,
}

impl ByteStrings {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list with room for `strings` strings of `bytes` bytes in all.
    pub fn with_capacity(strings: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(strings) }
    }

    /// Adds a string at the end.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// Forgets all of them, and keeps their memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds all strings of another list.
    pub fn append(&mut self, other: &ByteStrings) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    /// The string at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len), as for a slice.
    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The sum of all lengths, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The strings, in the order of pushing.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for ByteStrings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut list = Self::new();
        for string in strings {
            list.push(string.as_ref());
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends() {
        let mut strings: ByteStrings = ["a", ""].into_iter().collect();
        strings.append(&["bc", ""].into_iter().collect());
        assert_eq!(strings, ["a", "", "bc", ""].into_iter().collect());
    }

    #[test]
    fn holds_what_was_pushed() {
        let strings: ByteStrings = ["", "a", "", "bcd"].into_iter().collect();
        let back: Vec<&[u8]> = strings.iter().collect();
        assert_eq!(back, [b"".as_slice(), b"a", b"", b"bcd"]);
        assert_eq!((strings.len(), strings.total_bytes()), (4, 4));
    }
}
