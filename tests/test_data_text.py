"""Text that every machine has, characters as tokens, windows of tokens."""

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.data import DataLoader
from ringgrad.data.text import CharDataset, CharTokenizer, standard_library_text


def test_the_library_is_long_plain_and_the_same_each_time():
    text = standard_library_text(300_000)
    assert len(text) == 300_000 and text.isascii() and text.count("def ") > 300
    assert standard_library_text(300_000) == text and standard_library_text(1000) == text[:1000]


def test_the_library_leaves_out_tests_and_packages(tmp_path, monkeypatch):
    files = {
        "b.py": "b\n",
        "a.py": "a\n",
        "a/z.py": "az\n",
        "umlaut.py": "ä\n",
        "test/t.py": "no\n",
        "a/tests/t.py": "no\n",
        "site-packages/p.py": "no\n",
        "_sysconfigdata_linux.py": "no\n",
        "data.txt": "no\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    assert standard_library_text() == "az\na\nb\n"
    assert standard_library_text(4) == "az\na"
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path / "none")})
    with pytest.raises(FileNotFoundError, match="installed as source files, came none in"):
        standard_library_text()


def test_characters_become_numbers_and_come_back():
    text = "déjà vu 🙂 over"
    tokenizer = CharTokenizer(text)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64 and tokenizer.size == len(set(text)) and ids.max() == tokenizer.size - 1
    assert tokenizer.decode(ids) == tokenizer.decode(rg.tensor(ids)) == tokenizer.decode(ids.tolist()) == text
    assert CharTokenizer(vocabulary="ba").encode("ab").tolist() == [1, 0]
    assert CharTokenizer(text).vocabulary == sorted(set(text))
    assert tokenizer.encode("").tolist() == [] and tokenizer.decode([]) == ""


def test_what_is_not_in_the_vocabulary_is_named():
    tokenizer = CharTokenizer("abc")
    for text, culprit in (("abxc", "'x'"), ("a 🙂", "' '"), ("aB", "'B'")):
        with pytest.raises(ValueError, match=f"in the vocabulary, came {culprit}"):
            tokenizer.encode(text)
    for ids in ([0, 3], [-1, 2]):
        with pytest.raises(ValueError, match=rf"from 0 to 2, came {min(ids)} to {max(ids)}"):
            tokenizer.decode(ids)


@pytest.mark.parametrize("kind", [np.uint16, np.int64, rg.tensor])
def test_windows_of_tokens(kind):
    tokens = np.arange(11)
    data = CharDataset(kind(tokens) if kind is rg.tensor else tokens.astype(kind), 3)
    assert len(data) == 8
    x, y = data[7]
    assert (x.tolist(), y.tolist()) == ([7, 8, 9], [8, 9, 10]) and x.dtype is rg.int64
    assert data[-1][0].tolist() == x.tolist()
    apart = CharDataset(tokens, 3, stride=3)
    assert [x.tolist() for x, _ in (apart[i] for i in range(len(apart)))] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    for x, y in DataLoader(data, batch_size=5, shuffle=True):
        assert tuple(x.shape) in ((5, 3), (3, 3)) and (y - x).tolist() == [[1] * 3] * len(x)
        x.zero_()
    assert tokens.tolist() == list(range(11))


def test_windows_that_cannot_be():
    for tokens, size, stride in ((np.arange(3), 3, 1), (np.arange(9), 0, 1), (np.arange(9), 2, 0)):
        with pytest.raises(ValueError, match=f"block_size={size}, stride={stride} and {len(tokens)} tokens"):
            CharDataset(tokens, size, stride)
    with pytest.raises(ValueError, match=r"integers in one dimension, came float64\[3\]"):
        CharDataset(np.ones(3), 1)
    for index in (8, -9):
        with pytest.raises(IndexError, match=r"in \[-8, 7\]"):
            CharDataset(np.arange(9), 1)[index]
