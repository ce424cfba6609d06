"""An agent of openai-agents that counts words with a tool. Start `maskprobe serve --model smollm2` first."""

import os
from pathlib import Path
from typing import Literal

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

HERE = Path(__file__).parent


@function_tool
def count_words(file: Literal["README.md", "agent.py"]) -> str:
    """How many words a file has."""
    n_words = len((HERE / file).read_text(encoding="utf-8").split())
    print(f"tool: {file} has {n_words} words")
    return f"{file} has {n_words} words."


def main() -> None:
    """Asks the agent one question."""
    set_tracing_disabled(True)  # traces would go to OpenAI
    client = AsyncOpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    agent = Agent(
        name="librarian",
        instructions="Answer in one sentence.",
        model=OpenAIChatCompletionsModel(model="smollm2", openai_client=client),
        # "required" has small models call as well, some of them twice unless told otherwise; after the call the agent
        # goes back to "auto".
        model_settings=ModelSettings(tool_choice="required", parallel_tool_calls=False, temperature=0, max_tokens=80),
        tools=[count_words],
    )
    result = Runner.run_sync(agent, "How many words does README.md have?", max_turns=4)
    print("answer:", result.final_output)


if __name__ == "__main__":
    main()
