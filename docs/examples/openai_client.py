"""OpenAI's client: a chat, a stream and a call of a tool. Start `maskprobe serve --model smollm2` first."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
SETTINGS = {"model": "", "max_tokens": 80, "temperature": 0}  # no name: the model that is served

FACTOR = {"type": "integer", "minimum": 0, "maximum": 9999}  # schemas of tools are enforced
MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "The product of two numbers.",
        "parameters": {"type": "object", "properties": {"a": FACTOR, "b": FACTOR}, "required": ["a", "b"]},
    },
}


def main() -> None:
    """Asks three times."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = client.chat.completions.create(messages=messages, **SETTINGS)
    print("chat:", answer.choices[0].message.content)

    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    print("stream: ", end="")
    for chunk in client.chat.completions.create(messages=messages, stream=True, **SETTINGS):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    messages = [{"role": "user", "content": "What is 12 times 34?"}]
    # "required" has small models call as well; others decide by themselves with "auto", which is the default.
    how = {"tool_choice": "required", "parallel_tool_calls": False}
    asked = client.chat.completions.create(messages=messages, tools=[MULTIPLY], **how, **SETTINGS)
    messages.append(asked.choices[0].message)
    for call in asked.choices[0].message.tool_calls:
        factors = json.loads(call.function.arguments)
        result = factors["a"] * factors["b"]
        print(f"tool: {factors['a']} * {factors['b']} = {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
    answer = client.chat.completions.create(messages=messages, tools=[MULTIPLY], tool_choice="none", **SETTINGS)
    print("answer:", answer.choices[0].message.content)


if __name__ == "__main__":
    main()
