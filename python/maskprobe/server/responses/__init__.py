"""OpenAI's Responses API, over chats."""
