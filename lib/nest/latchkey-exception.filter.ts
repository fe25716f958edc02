import { type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common'
import { isLatchkeyError, type LatchkeyError, titleOf } from '../errors.ts'
import { sendProblem, sendProblemInReply } from '../http/send-problem.ts'
import { exchangeOf } from './http-exchange.ts'

/**
 * Answers this package's errors with problem bodies (RFC 9457), those of handlers too. `LatchkeyModule` adds it to the application,
 * unless `refuseWith` is `'error'`. Filters that are nearer to the route, or were added later, come before it.
 */
export class LatchkeyExceptionFilter implements ExceptionFilter<LatchkeyError> {
  catch(error: LatchkeyError, host: ArgumentsHost): void {
    const type = host.getType<string>()
    if (type === 'http') {
      const { reply, response } = exchangeOf(host)
      // Half an answer must not look like a whole one.
      if (response.headersSent && !response.writableEnded) response.destroy()
      else if (reply) sendProblemInReply(reply, error)
      else sendProblem(response, error)
    } else if (type === 'ws') {
      // As Nest's own filter does it. Elsewhere Nest goes on to that.
      const client = host.switchToWs().getClient<{ emit?: (event: string, data: object) => void }>()
      client.emit?.('exception', { status: 'error', message: titleOf(error.code) })
    }
  }
}

/** What the filter catches: errors of either copy of this package, which `instanceof` does not tell. */
const AnyLatchkeyError = Object.defineProperty(class {}, Symbol.hasInstance, { value: isLatchkeyError })

Catch(AnyLatchkeyError)(LatchkeyExceptionFilter)

/** In the place of the filter where there is to be none: it catches nothing. */
export class NoFilter implements ExceptionFilter {
  catch(error: unknown): never {
    throw error
  }
}

class Nothing {}

Catch(Nothing)(NoFilter)
