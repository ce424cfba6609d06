"""LangChain: a chain, its stream, and an answer with a schema. Start `maskprobe serve --model smollm2` first."""

import os

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

llm = ChatOpenAI(
    model="smollm2",
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
    temperature=0,
    max_tokens=80,
)
prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("user", "What is {thing}?")])


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


def main() -> None:
    """Asks three times."""
    chain = prompt | llm
    print("answer:", chain.invoke({"thing": "a lighthouse"}).content)

    print("stream: ", end="")
    for piece in chain.stream({"thing": "a compass"}):
        print(piece.content, end="", flush=True)
    print()

    print("person:", llm.with_structured_output(Person).invoke("Ada is 36 years old."))


if __name__ == "__main__":
    main()
