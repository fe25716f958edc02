import { OptionError } from '../internal/option-error.ts'

/** Every refusal is a response: there are no error handlers to hand it to. @throws TypeError */
export function checkOptions<Options extends object>(options: Options | undefined): Options {
  if (options && 'refuseWith' in options) {
    throw new OptionError('refuseWith', 'be left out: every refusal is a response')
  }
  return options ?? ({} as Options)
}
