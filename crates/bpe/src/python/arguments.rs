//! Python's values as the crate takes them, texts as bytes without a copy, ids as `Vec<u32>`; and
//! bytes as Python's text.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::vocab::TokenId;

/// The bytes of a `str` (its UTF-8, which Python keeps) or of a `bytes`.
pub fn text_bytes<'a>(text: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
    if let Ok(text) = text.cast::<PyString>() {
        return Ok(text.to_str().map_err(|_| lone_surrogate(text))?.as_bytes());
    }
    if let Ok(bytes) = text.cast::<PyBytes>() {
        return Ok(bytes.as_bytes());
    }
    Err(PyTypeError::new_err(format!("text must be str or bytes, not {}", type_name(text))))
}

/// The `str` of these bytes; U+FFFD for what is not UTF-8 (each maximal part of a character, as the
/// Unicode Standard recommends and Rust does it). Python decodes and checks in one pass, where
/// going through Rust's `str` would check first: a tenth of the time of decoding ids.
pub fn text_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let len = ffi::Py_ssize_t::try_from(bytes.len())?;
    // SAFETY: the bytes are valid for `len` and the error handler's name ends in NUL; what comes
    // back is a new `str` of ours, or NULL with an error set.
    unsafe {
        let text = ffi::PyUnicode_DecodeUTF8(bytes.as_ptr().cast(), len, c"replace".as_ptr());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// Surrogates are halves of UTF-16 characters; a lone one has no bytes.
fn lone_surrogate(text: &Bound<'_, PyString>) -> PyErr {
    let position = || -> PyResult<usize> {
        let error = text.call_method1("encode", ("utf-8",)).err();
        error.map_or(Ok(0), |error| error.value(text.py()).getattr("start")?.extract())
    };
    match position() {
        Ok(at) => PyValueError::new_err(format!(
            "the text has a lone surrogate at character {at}, which has no UTF-8: decode its \
             source with errors=\"replace\", or give its bytes"
        )),
        Err(error) => error,
    }
}

/// Special tokens, each with its id if one is said.
pub fn tokens_with_ids(
    tokens: &[(Bound<'_, PyString>, Option<TokenId>)],
) -> PyResult<Vec<(String, Option<TokenId>)>> {
    let owned = |(text, id): &(Bound<'_, PyString>, Option<TokenId>)| {
        let bytes = text_bytes(text.as_any())?;
        Ok((String::from_utf8_lossy(bytes).into_owned(), *id))
    };
    tokens.iter().map(owned).collect()
}

/// Several texts, as special tokens are passed.
pub fn strings(texts: &[Bound<'_, PyString>]) -> PyResult<Vec<String>> {
    let owned = |text: &Bound<'_, PyString>| {
        let bytes = text_bytes(text.as_any())?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    texts.iter().map(owned).collect()
}

/// Ids from whatever holds integers: a list, a buffer (NumPy array, `array`, memoryview), a tensor
/// or any other iterable.
pub fn token_ids(ids: &Bound<'_, PyAny>) -> PyResult<Vec<TokenId>> {
    if let Ok(list) = ids.cast::<PyList>() {
        return from_list(list, 0, list.len());
    }
    if let Ok(tuple) = ids.cast::<PyTuple>() {
        return collect(tuple.len(), tuple.iter().map(Ok));
    }
    // The dtypes that ids come in: token files, NumPy's and PyTorch's default, and the rest.
    if let Some(ids) = from_buffer::<u16>(ids)
        .or_else(|| from_buffer::<u32>(ids))
        .or_else(|| from_buffer::<i64>(ids))
        .or_else(|| from_buffer::<i32>(ids))
    {
        return ids;
    }
    // Arrays and tensors make Python integers faster, and of more dtypes, than iteration does.
    if let Ok(to_list) = ids.getattr("tolist") {
        let list = to_list.call0()?;
        let list = list.cast::<PyList>().map_err(|_| not_one_dimensional(ids))?;
        return from_list(list, 0, list.len());
    }
    if ids.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("ids must be integers, not text"));
    }
    collect(0, ids.try_iter()?)
}

/// Calls `work` with a few thousand ids of a list at a time, which stay in the nearest caches.
pub fn for_each_block(
    list: &Bound<'_, PyList>,
    mut work: impl FnMut(&[TokenId]) -> PyResult<()>,
) -> PyResult<()> {
    const BLOCK: usize = 4096;
    (0..list.len()).step_by(BLOCK).try_for_each(|from| {
        let to = list.len().min(from + BLOCK);
        work(&from_list(list, from, to)?)
    })
}

/// Most callers pass lists, so there is a path that counts no references: decoding a million ids
/// takes two thirds of the time.
fn from_list(list: &Bound<'_, PyList>, from: usize, to: usize) -> PyResult<Vec<TokenId>> {
    let mut ids = Vec::with_capacity(to.saturating_sub(from));
    for index in from..to {
        // SAFETY: `list` is a list and we hold the GIL, which the module declares to use even where
        // Python can do without. `item` is borrowed from it and used only while nothing can change
        // the list: converting a true `int` runs no Python code.
        let plain = unsafe {
            let item = ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t);
            if item.is_null() || ffi::PyLong_CheckExact(item) == 0 {
                None
            } else {
                // What does not fit into a C long becomes -1, which is not an id either.
                let mut overflow = 0;
                TokenId::try_from(ffi::PyLong_AsLongAndOverflow(item, &mut overflow)).ok()
            }
        };
        match plain {
            Some(id) => ids.push(id),
            None => {
                // Drops the error of a list that has shrunk.
                PyErr::take(list.py());
                ids.push(token_id(&list.get_item(index)?)?);
            }
        }
    }
    Ok(ids)
}

/// Not `Iterator::collect`, which would not reserve memory, as an error may end it early.
fn collect<'py>(
    expected: usize,
    ids: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Vec<TokenId>> {
    let mut collected = Vec::with_capacity(expected);
    for id in ids {
        collected.push(token_id(&id?)?);
    }
    Ok(collected)
}

#[inline]
fn token_id(id: &Bound<'_, PyAny>) -> PyResult<TokenId> {
    id.extract().map_err(|_| {
        if id.is_instance_of::<PyList>() {
            PyTypeError::new_err("ids must be one-dimensional: decode one row at a time")
        } else if id.call_method0("__index__").is_ok() {
            PyValueError::new_err(format!("{id} is not a token id: ids are 0 to {}", TokenId::MAX))
        } else {
            PyTypeError::new_err(format!("ids must be integers, not {}", type_name(id)))
        }
    })
}

/// None if `ids` is not a buffer of `T`.
fn from_buffer<T>(ids: &Bound<'_, PyAny>) -> Option<PyResult<Vec<TokenId>>>
where
    T: Element + TryInto<TokenId> + std::fmt::Display,
{
    let buffer = PyBuffer::<T>::get(ids).ok()?;
    // PyO3 takes big-endian buffers for native ones (0.30): leave these to `tolist`.
    if cfg!(target_endian = "little") && buffer.format().to_bytes().starts_with(b">") {
        return None;
    }
    if buffer.dimensions() != 1 {
        return Some(Err(not_one_dimensional(ids)));
    }
    let convert = |value: T| {
        value.try_into().map_err(|_| {
            PyValueError::new_err(format!(
                "{value} is not a token id: ids are 0 to {}",
                TokenId::MAX
            ))
        })
    };
    let values = match buffer.to_vec(ids.py()) {
        Ok(values) => values,
        Err(error) => return Some(Err(error)),
    };
    Some(values.into_iter().map(convert).collect())
}

fn not_one_dimensional(ids: &Bound<'_, PyAny>) -> PyErr {
    let shape = ids.getattr("shape").map_or_else(|_| "unknown".to_owned(), |s| s.to_string());
    PyTypeError::new_err(format!("ids must be one-dimensional, not of shape {shape}"))
}

/// The name of an object's type, for messages.
pub fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "an unnamed type".to_owned(), |name| name.to_string())
}
