/** A wrong option: a `TypeError` that names it, and says what belongs there apart from the message, which may be reworded. */
export class OptionError extends TypeError {
  readonly #field: string
  readonly #expected: string

  constructor(field: string, expected: string, message = `"${field}" must ${expected}`) {
    super(message)
    this.#field = field
    this.#expected = expected
  }

  /** Where the option is, such as `cache.maxAgeMs`. */
  get field(): string {
    return this.#field
  }

  /** What it must do or be, such as `be a positive integer`. */
  get expected(): string {
    return this.#expected
  }

  static is(error: unknown): error is OptionError {
    return typeof error === 'object' && error !== null && #field in error
  }
}

/** What belongs where a wrong option is, as a noun: `a positive integer`. */
export function acceptedBy({ expected }: OptionError): string {
  return expected.replace(/^be /, '')
}
