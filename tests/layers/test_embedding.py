"""Vectors of words, of the characters of words, and from files."""

import gzip
import lzma

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from rnnzoo.batches import WordCharacters
from rnnzoo.errors import InputError
from rnnzoo.layers.embedding import PADDING, UNKNOWN, CharacterEmbedding, WordEmbedding, load_text_vectors

torch.set_num_threads(1)

KINDS = pytest.mark.parametrize("kind", ["cnn", "rnn"])
WORD_LENGTHS = (3, 0, 1, 5, 6, 9, 10, 15, 16, 31, 2, 0)
OPENERS = {".txt": open, ".gz": gzip.open, ".xz": lzma.open}


def make_words(**options):
    torch.manual_seed(0)
    return WordEmbedding(vocabulary_size=50, size=8, **options)


def make_characters(kind, **options):
    torch.manual_seed(0)
    return CharacterEmbedding(vocabulary_size=30, size=5, output_size=6, kind=kind, **options)


def draw_words(lengths=WORD_LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 30, (length,), generator=generator).tolist() for length in lengths]


def alone(embedding, word):
    return embedding(WordCharacters.of([[word]]))[0, 0]


def write(path, text):
    with OPENERS[path.suffix](path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def test_word_embedding_looks_up():
    embedding = make_words().eval()
    tokens = torch.randint(50, (3, 4))
    assert torch.equal(embedding(tokens), embedding.table.weight[tokens])


def test_word_vectors_begin_with_about_unit_norm():
    embedding = WordEmbedding(vocabulary_size=2000, size=100)
    assert_close(embedding.table.weight[1:].norm(dim=1).mean(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_the_padding_row_is_zero_and_stays_so():
    embedding = make_words()
    assert (embedding.table.weight[PADDING] == 0).all()
    optimizer = torch.optim.SGD(embedding.parameters(), lr=1.0)
    before = embedding.table.weight[3].detach().clone()
    embedding(torch.tensor([[3, PADDING]])).sum().backward()
    optimizer.step()
    assert (embedding.table.weight[PADDING] == 0).all()
    assert not torch.equal(embedding.table.weight[3], before)


def test_word_dropout_takes_whole_words_and_keeps_the_scale_of_the_others():
    embedding = make_words(word_dropout=0.3)
    with torch.no_grad():
        embedding.table.weight[UNKNOWN] = 7.0
    tokens = torch.randint(2, 50, (100, 100))
    found, full = embedding(tokens), embedding.table.weight[tokens]
    dropped = (found == 7).all(-1)
    assert torch.equal(found[~dropped], full[~dropped])
    assert 0.27 < float(dropped.float().mean()) < 0.33
    assert 0 < int(dropped[:, 0].sum()) < 100  # drawn for each place, not for each column or row
    assert 0 < int(dropped[0].sum()) < 100
    assert not torch.equal(embedding(tokens), found)


def test_padding_is_never_read_as_unknown():
    embedding = make_words(word_dropout=0.9)
    with torch.no_grad():
        embedding.table.weight[UNKNOWN] = 7.0
    assert (embedding(torch.zeros(50, 50, dtype=torch.long)) == 0).all()


def test_the_unknown_vector_is_learnt_from_dropped_words():
    for share in (0.0, 0.5):
        embedding = make_words(word_dropout=share)
        assert (embedding.table.weight[UNKNOWN] == 0).all()
        (gradient,) = torch.autograd.grad(embedding(torch.full((20, 20), 5)).sum(), embedding.table.weight)
        assert gradient[:, 0].sum() == 400
        assert 0.8 * share <= gradient[UNKNOWN, 0] / 400 <= 1.2 * share
        assert gradient[UNKNOWN, 0] + gradient[5, 0] == 400


def test_dropout_takes_single_numbers_and_scales_the_others():
    embedding = make_words(dropout=0.25)
    tokens = torch.randint(2, 50, (50, 50))
    found, full = embedding(tokens), embedding.table.weight[tokens]
    kept = found != 0
    assert_close(found[kept], full[kept] / 0.75)
    assert 0.73 < float(kept.float().mean()) < 0.77
    assert not (kept.all(-1) | ~kept.any(-1)).all()


def test_nothing_is_dropped_in_evaluation():
    embedding = make_words(dropout=0.5, word_dropout=0.5).eval()
    tokens = torch.randint(50, (3, 4))
    assert torch.equal(embedding(tokens), embedding.table.weight[tokens])


@pytest.mark.parametrize("name", ["dropout", "word_dropout"])
@pytest.mark.parametrize("share", [1.0, -0.1, 2])
def test_shares_out_of_range_are_refused(name, share):
    with pytest.raises(InputError, match=rf"words\.{name}: expected a share"):
        make_words(**{name: share})


def test_pretrained_vectors_replace_the_rows_they_have():
    embedding = make_words()
    before = embedding.table.weight.detach().clone()
    vectors = torch.full((50, 8), float("nan"))
    vectors[2:5] = torch.arange(24.0).reshape(3, 8)
    embedding.load_vectors(vectors)
    assert torch.equal(embedding.table.weight[2:5], vectors[2:5])
    assert torch.equal(embedding.table.weight[:2], before[:2])
    assert torch.equal(embedding.table.weight[5:], before[5:])
    assert embedding.table.weight.requires_grad


def test_pretrained_vectors_leave_the_padding_row_zero():
    embedding = make_words()
    embedding.load_vectors(torch.ones(50, 8))
    assert (embedding.table.weight[PADDING] == 0).all()


@KINDS
def test_each_word_has_the_vector_it_has_alone(kind):
    embedding = make_characters(kind).eval()
    words = draw_words()
    found = embedding(WordCharacters.of([words[:6], words[6:]]))
    assert found.shape == (2, 6, 6)
    for word, vector in zip(words, found.reshape(-1, 6), strict=True):
        expected = alone(embedding, word) if word else torch.zeros(6)
        assert_close(vector, expected)


@KINDS
def test_the_same_word_has_the_same_vector_wherever_it_stands(kind):
    embedding = make_characters(kind)
    words = draw_words()
    first = embedding(WordCharacters.of([words, words[::-1]]))
    assert torch.equal(first[0], first[1].flip(0))
    other = embedding(WordCharacters.of([[words[4], [7, 7], words[4]], [words[4], words[9]]]))
    assert torch.equal(other[0, 0], other[0, 2])
    assert torch.equal(other[0, 0], other[1, 0])
    assert_close(other[0, 0], first[0, 4])


@KINDS
def test_order_of_characters_matters(kind):
    embedding = make_characters(kind)
    found = embedding(WordCharacters.of([[[1, 2, 3], [3, 2, 1], [1, 2, 3, 3]]]))[0]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@KINDS
def test_words_without_characters_are_zero(kind):
    embedding = make_characters(kind)
    assert (embedding(WordCharacters.of([[[], [1, 2], []]]))[0, [0, 2]] == 0).all()
    assert torch.equal(embedding(WordCharacters.of([[[]] * 3] * 2)), torch.zeros(2, 3, 6))


@KINDS
@pytest.mark.parametrize(("rows", "shape"), [([[[]], []], (2, 1, 6)), ([[], []], (2, 0, 6)), ([], (0, 0, 6))])
def test_batches_without_characters(kind, rows, shape):
    assert make_characters(kind)(WordCharacters.of(rows)).shape == shape


def straightforward(embedding, words):
    """Encode words padded to the longest of all, each as often as it occurs."""
    lengths = torch.tensor([len(word) for word in words])
    padded = torch.zeros(len(words), int(lengths.max()), dtype=torch.long)
    for row, word in zip(padded, words, strict=True):
        row[: len(word)] = torch.tensor(word, dtype=torch.long)
    some = lengths > 0
    found = torch.zeros(len(words), embedding.output_size)
    found[some] = embedding._encode(padded[some], lengths[some])
    return found


@KINDS
def test_answers_and_gradients_are_those_of_one_padded_table(kind):
    embedding = make_characters(kind)
    words = draw_words((*WORD_LENGTHS, 40, 77)) * 2
    found, expected = embedding(WordCharacters.of([words]))[0], straightforward(embedding, words)
    assert_close(found, expected)
    scale = torch.linspace(0.1, 2, len(words)).unsqueeze(1)
    parameters = list(embedding.parameters())
    gradients = [torch.autograd.grad((each * scale).square().sum(), parameters) for each in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


class Counted:
    """How many numbers the layers that read characters were given."""

    def __init__(self, embedding):
        self.numbers = 0
        for layer in (embedding.table, embedding.convolution, embedding.recurrent):
            if layer is not None:
                layer.register_forward_pre_hook(self.add)

    def add(self, layer, inputs):
        self.numbers += inputs[0].numel()


@pytest.mark.parametrize("longest", [2_000, 50_000])
def test_a_long_word_costs_what_its_characters_cost(longest):
    embedding = make_characters("cnn")
    counted = Counted(embedding)
    usual = [draw_words((3, 5, 8, 17, 20) * 4, seed=row) for row in range(16)]
    embedding(WordCharacters.of(usual))
    before, counted.numbers = counted.numbers, 0
    (long,) = draw_words((longest,))
    embedding(WordCharacters.of([*usual, [long]]))
    assert counted.numbers == before + longest * (1 + embedding.table.embedding_dim)


@KINDS
def test_padding_is_a_bounded_share_whatever_the_lengths(kind):
    embedding = make_characters(kind)
    counted = Counted(embedding)
    words = draw_words((*range(1, 60), 100, 101, 300))
    embedding(WordCharacters.of([words]))
    assert counted.numbers <= 1.5 * sum(map(len, words)) * (1 + embedding.table.embedding_dim)


def test_every_different_word_is_computed_once():
    embedding = make_characters("cnn")
    counted = Counted(embedding)
    words = draw_words((4, 4, 4))
    embedding(WordCharacters.of([words * 50, words[:2] * 7]))
    assert counted.numbers == 3 * 4 * (1 + embedding.table.embedding_dim)


def test_cnn_is_the_maximum_of_convolutions_of_width_three():
    embedding = make_characters("cnn")
    weight, bias = embedding.convolution.weight, embedding.convolution.bias  # [O, E, 3], [O]
    for word in draw_words((1, 2, 7, 20)):
        vectors = F.pad(embedding.table.weight[torch.tensor(word)], (0, 0, 1, 1))  # [W + 2, E]
        steps = [torch.einsum("we,oew->o", vectors[t : t + 3], weight) + bias for t in range(len(word))]
        assert_close(alone(embedding, word), torch.stack(steps).amax(0))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rnn_joins_the_last_states_of_both_directions(cell):
    embedding = make_characters("rnn", cell=cell)
    layer = embedding.recurrent.to_torch()
    for word in draw_words((1, 2, 7, 20)):
        _, state = layer(embedding.table(torch.tensor([word])))
        hidden = state[0] if cell == "lstm" else state  # [2, 1, H]
        assert_close(alone(embedding, word), hidden.reshape(-1), atol=1e-5, rtol=1e-5)


@KINDS
def test_gradients_are_those_of_the_words_one_by_one(kind):
    embedding = make_characters(kind)
    words = [word for word in draw_words() if word]
    together = embedding(WordCharacters.of([[*words, words[0], []]])).square().sum()
    one_by_one = sum(alone(embedding, word).square().sum() for word in [*words, words[0]])
    parameters = list(embedding.parameters())
    found, expected = (torch.autograd.grad(loss, parameters) for loss in (together, one_by_one))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert (found[0][PADDING] == 0).all()


@KINDS
def test_characters_in_mixed_precision(kind):
    embedding = make_characters(kind).eval()
    characters = WordCharacters.of([draw_words()])
    expected = embedding(characters)
    with torch.autocast("cpu", torch.bfloat16):
        found = embedding(characters)
    assert_close(found.float(), expected, atol=0.05, rtol=0.05)


def test_bad_options_of_characters_are_refused():
    with pytest.raises(InputError, match=r"characters\.kind: expected one of cnn, rnn"):
        make_characters("cnnn")
    with pytest.raises(InputError, match=r"characters\.output_size: expected an even number for rnn, got 7"):
        CharacterEmbedding(vocabulary_size=5, size=2, output_size=7, kind="rnn")
    assert CharacterEmbedding(vocabulary_size=5, size=2, output_size=7).output_size == 7


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("header", ["", "3 2\n"], ids=["plain", "header"])
def test_vectors_from_a_file(tmp_path, suffix, header):
    path = write(tmp_path / f"vectors{suffix}", f"{header}the 1 2\ncafé -3.5 4e-1\nother 9 9\n")
    vectors, count = load_text_vectors(path, ["<pad>", "café", "the", "missing"])
    nan = float("nan")
    assert count == 2
    assert_close(vectors, torch.tensor([[nan, nan], [-3.5, 0.4], [1, 2], [nan, nan]]), equal_nan=True)
    assert torch.equal(load_text_vectors(str(path), ["the"])[0], torch.tensor([[1.0, 2.0]]))


@pytest.mark.parametrize("order", [["the 1 1", "The 2 2", "rome 3 3"], ["rome 3 3", "The 2 2", "the 1 1"]])
def test_a_word_that_is_missing_takes_the_vector_of_its_lower_case_form(tmp_path, order):
    path = write(tmp_path / "vectors.txt", "\n".join(order))
    vectors, count = load_text_vectors(path, ["The", "THE", "the", "Rome", "rome", "Paris"])
    assert vectors[:, 0].nan_to_num().tolist() == [2, 1, 1, 3, 3, 0]
    assert count == 5


def test_an_upper_case_form_is_not_used_for_a_lower_case_word(tmp_path):
    assert load_text_vectors(write(tmp_path / "vectors.txt", "The 1 2\n"), ["the"])[1] == 0


def test_lines_of_files_are_read_as_they_are_written_by_others(tmp_path):
    # fastText ends lines in a blank, Windows in CR LF, and words hold characters that str.splitlines would cut at.
    path = write(tmp_path / "vectors.txt", "a\u2028b 1 2 \r\nc\u0085 3 4 \r\nd\xa0e 5 6")
    vectors, count = load_text_vectors(path, ["a\u2028b", "c\u0085", "d\xa0e"])
    assert (vectors.tolist(), count) == ([[1, 2], [3, 4], [5, 6]], 3)


def test_words_with_blanks_as_glove_has_them(tmp_path):
    path = write(tmp_path / "vectors.txt", "the 1 2\n. . . 3 4\nat name@domain.com -5 6e0\nNew York 7 8\n")
    vectors, count = load_text_vectors(path, ["New York", ". . .", "at name@domain.com", "the", "at", "."])
    assert vectors[:4].tolist() == [[7, 8], [3, 4], [-5, 6], [1, 2]]
    assert count == 4


@pytest.mark.parametrize("text", ["", "400000 300\n"], ids=["nothing", "header"])
def test_files_without_vectors_are_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"vectors\.txt"):
        load_text_vectors(write(tmp_path / "vectors.txt", text), ["the"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2\ncat 1\n", r"line 2: expected a word and 2 numbers, got 1"),
        ("2 2\nthe 1 2\ncat 1 2 3\n", r"line 3: expected a word and 2 numbers, got 3"),
        ("the 1 2\n\ncat 1 2\n", r"line 2: expected a word and 2 numbers, got 0"),
        ("the 1 2\ncat 1 x\n", r"line 2: expected numbers, got .*'x'"),
    ],
    ids=["short", "long", "blank", "letters"],
)
def test_bad_lines_are_refused_with_their_number(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_text_vectors(write(tmp_path / "vectors.txt", text), ["the", "cat"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latin.txt", "café 1 2\n".encode("latin-1")),
        ("not.gz", b"the 1 2\n"),
        ("cut.gz", gzip.compress(b"the 1 2\n" * 100, mtime=0)[:-12]),
        ("broken.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 50),
        ("not.xz", b"the 1 2\n"),
        ("cut.xz", lzma.compress(b"the 1 2\n" * 100)[:-40]),
        ("missing.txt", None),
        ("missing.gz", None),
    ],
)
def test_unreadable_files_are_refused_by_name(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_text_vectors(tmp_path / name, ["the"])
