"""Several prompts at once on one model: a list that is worked through, and tasks of an event loop."""

import asyncio

from maskprobe import MaskProbeLlama, embedded_model

THINGS = ("a lighthouse", "a compass", "a windmill", "bread")
SETTINGS = {"max_tokens": 24, "temperature": 0.0}


async def ask(llm: MaskProbeLlama, prompts: list[list[int]]) -> None:
    """Asks from tasks: the event loop stays free, and a task that is cancelled ends its generation."""
    answers = await asyncio.gather(*(llm.agenerate(prompt, **SETTINGS) for prompt in prompts))
    for index, answer in enumerate(answers):
        print(f"task {index}:", answer.text.strip())


def main() -> None:
    """Works through the list, then asks the same from tasks."""
    # Three at once share passes; with queue=True a fourth waits for its turn.
    with MaskProbeLlama(embedded_model(), n_parallel=3, queue=True) as llm:
        prompts = [llm.apply_chat_template([{"role": "user", "content": f"What is {thing}?"}]) for thing in THINGS]
        for done in llm.generate_many(prompts, **SETTINGS):  # as they end
            print(f"prompt {done.index}:", done.error or done.generation.text.strip())
        asyncio.run(ask(llm, prompts))


if __name__ == "__main__":
    main()
