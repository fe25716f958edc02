/** Something that answers a prompt, a token at a time. */
export interface Model {
  reply(prompt: string): AsyncIterable<string>
}

/** A model that repeats the words of a prompt, each twice. It stands in for a real one. */
export const echo: Model = {
  async *reply(prompt) {
    for (const word of prompt.split(/\s+/).filter(Boolean)) {
      yield `${word} `
      yield `${word} `
    }
    yield '\n'
  },
}
