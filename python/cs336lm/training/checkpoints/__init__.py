"""Checkpoints: all that training needs to continue, whole on the disk or not there.

**state.py** is what is in one, **archive.py** one file, **seal.py** its checksum, **sharded.py**
one directory; **course.py**
has the course's two functions; **snapshot.py** and **writer.py** let training continue meanwhile.
"""
