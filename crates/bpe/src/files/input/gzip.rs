//! `.gz`: any number of members one after the other, then, as from a tape, perhaps zeros.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The text of all members.
pub struct Members<R> {
    /// The member that is being read; `None` after the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    pub fn new(raw: R) -> Self {
        Self { member: Some(GzDecoder::new(raw)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut raw) = self.member.take().map(GzDecoder::into_inner) else { break };
            if skip_zeros(&mut raw)? {
                self.member = Some(GzDecoder::new(raw));
            }
        }
        Ok(0)
    }
}

/// Whether something follows.
fn skip_zeros(raw: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = match raw.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match buffer.iter().position(|&byte| byte != 0) {
            Some(zeros) => {
                raw.consume(zeros);
                return Ok(true);
            }
            None if buffer.is_empty() => return Ok(false),
            None => {
                let zeros = buffer.len();
                raw.consume(zeros);
            }
        }
    }
}
