"""A trained model behind HTTP: OpenAI's endpoints, and a page to look at what it predicts."""
