"""llama-index: answers from texts of your own, with the model in the same process, whole and streamed."""

import llama_index.llms.llama_cpp.base as llama_cpp_module
from llama_index.core import Document, SummaryIndex
from llama_index.llms.llama_cpp import LlamaCPP

from maskprobe import MaskProbeLlama, embedded_model

llama_cpp_module.Llama = MaskProbeLlama  # llama-index makes its llama_cpp.Llama itself

TEXTS = [
    "The bakery at the corner opens at six in the morning and closes at noon. It is closed on Sundays.",
    "The library opens at nine in the morning and closes at eight in the evening, every day.",
]


def chatml(question: str) -> str:
    """A question in the chat format of the embedded model; other models have others."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    """Asks twice."""
    llm = LlamaCPP(
        model_path=str(embedded_model()),
        temperature=0.0,
        max_new_tokens=80,
        context_window=2048,
        completion_to_prompt=chatml,
        verbose=False,
    )
    index = SummaryIndex.from_documents([Document(text=text) for text in TEXTS])
    print("answer:", index.as_query_engine(llm=llm).query("When does the library open?"))

    print("stream: ", end="")
    for piece in index.as_query_engine(llm=llm, streaming=True).query("When is the bakery closed?").response_gen:
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
